"""Bodies: skeletons, rotations, motion clips and their files, and the features that networks of motion read."""
