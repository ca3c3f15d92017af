"""A real pretrained model (docs/real_model.md): its weights, the stages of the comparison, and the tables."""
