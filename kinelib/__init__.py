"""Motion generation in three systems (ZipMo, Kimodo, KinMo): a course and a reproduction. Importing it is instant."""

__version__ = "0.1.0"
