"""What ``thrifty bench`` measures: ratios of images per second, interleaved in one process."""
