"""The ledger of usage: who used how much of which model on which day, and what it cost."""
