"""Requests that are answered elsewhere: sent on, passed back, and watched. Used where there are upstreams."""
