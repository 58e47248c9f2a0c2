"""Engines that hold collections elsewhere than on this machine's disk, behind one protocol."""
