"""SQLite behind small interfaces."""
