"""Networks of published rewards, built strictly from the files of their releases."""
