"""Who may come in, and to what: one gate for every face."""
