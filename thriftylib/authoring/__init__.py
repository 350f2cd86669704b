"""What a paper's author needs: a skeleton to start from, and a check of what is still wrong."""
