"""KinMo: six kinematic groups and their interactions in words, alignment in three levels, generation from coarse to fine."""
