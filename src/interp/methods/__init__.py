"""One file per technique: ``function(model, …) -> Result``, declared with ``@technique``. No pictures, no IPython."""
