"""How close a restored scan is to what was acquired."""
