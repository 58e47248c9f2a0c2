"""Distillation: a smaller generator or encoder that answers like its teacher."""
