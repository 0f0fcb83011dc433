"""Static pictures of results: HTML and SVG with everything inline, PNG, Plotly and CircuitsVis."""
