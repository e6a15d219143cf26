"""The commands of `fastbptt`: one file each, with its picture beside it."""
