"""LeRobotDataset, the one format on the disk: readers (v3.0, v2.1) and a writer that loses nothing."""
