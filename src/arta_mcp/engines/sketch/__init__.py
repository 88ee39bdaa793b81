"""How the default engine draws: canvas, figures, words, scenery and manners."""
