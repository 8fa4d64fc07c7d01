"""Speed and memory of glsk, next to what a careful user would write and to auto_LiRPA. See README.md."""
