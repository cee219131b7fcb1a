"""Files of the chart and the manifests that are made from others, so that nothing is said twice."""
