"""Datasets of other tools, one file each, and what these files share: columns, arrays, hdf5, spaces."""
