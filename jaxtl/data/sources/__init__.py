"""Where data come from, but for TFDS: files, folders, frames, Hugging Face, scikit-learn."""
