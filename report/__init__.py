"""What people look at: tables, pages, plots of a run folder."""
