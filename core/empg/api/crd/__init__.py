"""The CustomResourceDefinition of `EMPGRun`, generated from the models: `empg crd > manifests/crd.yaml`."""
