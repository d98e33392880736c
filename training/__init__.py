"""From a folder of photos to petclf.pt."""
