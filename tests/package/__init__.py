"""Built distributions, and a package that compiles against an installed hvcore."""
