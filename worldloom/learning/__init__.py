"""Learning while acting: collect, train on what was collected, judge, save."""
