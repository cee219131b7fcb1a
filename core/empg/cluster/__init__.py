"""What learner and samplers do beside their work when they run in pods: probes, reports, last words."""
