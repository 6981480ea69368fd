"""Episodes, from the disk to a batch.

What they are: spec, episode, segment, validate. Where they come from: source opens any format (lerobot, our own on the
disk, and formats, which are imported by convert); record plays environments. How they reach a model: cache, sampler,
loader. What is in them: card.
"""
