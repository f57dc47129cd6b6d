"""One scan file: headers checked before any pixel is read, and MetaImage written."""
