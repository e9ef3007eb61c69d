"""Facts about vendors, as data. Adding a vendor touches one file."""
