"""Checking what plugins register: by looking at it (``static``), and by trying it out (``smoke``)."""
