"""The product's rules broken one by one, for `mutants`: what is put in the place of real functions and classes."""
