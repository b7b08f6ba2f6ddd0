"""What goes into a model and comes out of it: frozen, typed records without behaviour of their own."""
