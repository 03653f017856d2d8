"""The library that the stages in stages/ are written with. It never imports a stage."""
