"""Many cases at once: lists and folders of scans, a Dask cluster that fills them, tables of what came out."""
