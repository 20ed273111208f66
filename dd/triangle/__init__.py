"""Diffusions of one cell of three categories, exact, for the tab Simplex: particles on a triangle beside theory."""
