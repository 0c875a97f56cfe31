"""Preparation by many workers, with Apache Beam; the extra `beam`."""
