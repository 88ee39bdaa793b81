"""How the default engine draws: words, scenery, figures, canvas and treatments."""
