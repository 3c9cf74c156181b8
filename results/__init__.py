"""What runs leave behind: records, folders, statistics."""
