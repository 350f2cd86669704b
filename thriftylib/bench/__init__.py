"""What ``thrifty bench`` measures: images per second of several ways to train one network, interleaved."""
