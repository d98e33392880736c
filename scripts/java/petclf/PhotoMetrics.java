package petclf;

import java.util.Arrays;
import java.util.List;
import org.pytorch.serve.metrics.IMetric;
import org.pytorch.serve.metrics.MetricCache;
import org.pytorch.serve.util.ConfigManager;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** What TorchServe counts of each request, for one model: looked up once instead of for each photo. */
final class PhotoMetrics {
    private static final Logger logger = LoggerFactory.getLogger(PhotoMetrics.class);

    final IMetric requests = find("ts_inference_requests_total");
    final IMetric latency = find("ts_inference_latency_microseconds");
    final IMetric queueLatency = find("ts_queue_latency_microseconds");
    final IMetric queueTime = find("QueueTime");
    private final IMetric fine = find("Requests2XX");
    private final IMetric wrong = find("Requests4XX");
    private final IMetric failed = find("Requests5XX");
    private final List<String> ofModel;
    private final List<String> ofHost;

    PhotoMetrics(String name, String version) {
        String host = ConfigManager.getInstance().getHostName();
        ofModel = Arrays.asList(name, version == null ? "default" : version, host);
        ofHost = Arrays.asList("Host", host);
    }

    private static IMetric find(String name) {
        return MetricCache.getInstance().getMetricFrontend(name);
    }

    void count(IMetric metric) {
        add(metric, 1);
    }

    void add(IMetric metric, double value) {
        update(metric, ofModel, value);
    }

    void tell(IMetric metric, double value) {
        update(metric, ofHost, value);
    }

    void answered(int code) {
        tell(code >= 200 && code < 300 ? fine : code >= 400 && code < 500 ? wrong : failed, 1);
    }

    /** Answers must go on, whatever metrics.yaml says. */
    private static void update(IMetric metric, List<String> labels, double value) {
        try {
            if (metric != null) {
                metric.addOrUpdate(labels, value);
            }
        } catch (RuntimeException wrong) {
            logger.error("A metric cannot be updated", wrong);
        }
    }
}
