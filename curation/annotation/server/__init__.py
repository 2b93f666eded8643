"""What runs inside the environment `argilla`: Argilla's own server, with a search engine of its own tables.

Nothing here imports the rest of kedge, whose packages are not there. `launch.py` is run by its path.
"""
