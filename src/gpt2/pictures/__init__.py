"""Pictures of a run and of a model at work: data in, a matplotlib figure or a page out."""
