"""The declarations of the eleven entity types: the payload keys of each column."""
