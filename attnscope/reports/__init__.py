"""Reports: from statistics to a HeadReport."""
