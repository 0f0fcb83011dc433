"""Interactive views of results: anywidget classes that read a Result's arrays and never a model."""
