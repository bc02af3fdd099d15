"""OpenStack Swift: containers as sources of entries. Its parts are imported when a container is looked at."""
