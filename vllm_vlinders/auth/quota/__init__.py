"""How much has been used, and whether there is room for more."""
