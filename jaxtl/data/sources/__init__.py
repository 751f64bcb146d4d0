"""Where data come from, but for TFDS: files, folders and the tables of scikit-learn."""
