"""Models in the formats of other programs; every format is read into a `PortableModel`."""
