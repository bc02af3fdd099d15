"""The backends: what can be listed, and how. One module for each kind of target, and what it needs."""
